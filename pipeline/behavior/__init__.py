"""BEHAVIOR's tasks: the fifty of the challenge, and instructions in words made of their goals in BDDL."""
