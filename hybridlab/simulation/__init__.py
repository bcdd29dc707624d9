"""A CUDA card without a GPU: CUDA's own torch over stand-in libraries.

`build` compiles the libraries that CUDA's torch asks for, `state` keeps the file that says which
cards there are and who holds what of them. Memory, streams, the choice of kernels and NVML's
answers are torch's real ones; kernels do not run.
"""
