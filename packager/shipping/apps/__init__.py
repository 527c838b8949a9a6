"""The package as an app team takes it: whole below `package/`, beside it files of their own
language with its hashes and sizes."""
