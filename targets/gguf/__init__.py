"""The GGUF writer: from a checkpoint to quantized tensors in one pass, engine optional."""
