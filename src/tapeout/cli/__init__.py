"""Arguments to flow: the command line of the contract."""
