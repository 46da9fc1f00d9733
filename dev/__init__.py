"""The development stack: real servers for ``make up`` and for the tests. Nothing here is deployed."""
