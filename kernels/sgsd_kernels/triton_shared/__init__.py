"""What the Triton kernels of all families share: arithmetic, tiles and their sizes, operands, the catalogue.

Importing a module of this folder or of a family's ``kernels``, ``triton`` and ``cublas`` needs triton; nothing else of
`sgsd_kernels` does.
"""
