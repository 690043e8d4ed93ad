"""`Model` = `Graph` + weights + tokenizer; its checkers; the reference executor and its quick twin."""
