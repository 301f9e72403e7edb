"""The household on MuJoCo Warp: the same worlds, a thousand at a time, on a GPU (or, slowly, on the CPU)."""
