"""What proves a drill to an auditor: one signed document, checked offline with a public key, and incidents."""
