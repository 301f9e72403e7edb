"""The DeepSpeed engine, its optimizers, its checkpoints and the ranks it runs on."""
