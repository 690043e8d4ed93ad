"""Files of others -> `Model`: GGUF, Hugging Face folders and llama2.c; `load.py` tells them apart by content.

What a file says is carried exactly: nothing is quantized twice, rounded or guessed. What is not understood is refused.
"""
