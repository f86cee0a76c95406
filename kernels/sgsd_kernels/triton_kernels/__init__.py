"""The Triton kernels. Importing a module of this folder needs triton; nothing else of `sgsd_kernels` does.

`arithmetic` and `tiles` hold what the kernels share. Each other module is one kernel or a pair of them: its Triton
code, the function that launches it, and the `specimens` that are compiled ahead of time.
"""
