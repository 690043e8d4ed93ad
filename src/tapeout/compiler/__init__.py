"""Model + ChipSpec -> Schedule -> Program: one pass per file, `pipeline.py` is the column of passes."""
