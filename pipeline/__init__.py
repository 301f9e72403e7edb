"""What runs when, and what has been done. No torch in here: the command line answers at once on a login node."""
