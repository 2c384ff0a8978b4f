"""Triton decides when it is imported whether it interprets; on a machine without a GPU it must."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
