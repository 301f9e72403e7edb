"""LIBERO's demonstrations: the original release's HDF5, OpenVLA's RLDS, and LeRobot's data sets."""
