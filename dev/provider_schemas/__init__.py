"""What Terraform's providers take: arguments, blocks and exports of all that terraform/ uses, in one JSON file.

`terraform validate` would know, but it must download the providers from their registry, which not every machine may.
The same schema is published a second time, as bindings for Python on PyPI. They weigh 60 MB, so they are read once, and
what our resources need of them is kept in `excerpt.json`:

    python -m dev.provider_schemas      # after a new resource in terraform/, or new versions in packages.txt
"""
