"""The quick engine's ops in C: a library without Python in it, built when tapeout is installed where a C compiler stands.

The same bits as the loops of `graph/loops.py`, at the speed of memory. `build.py` compiles, `library.py` loads and says
why there is none, `packing.py` lays out matrices, `plan.py` makes a model ready and runs passes over it.
"""
