"""The work: one readable file a stage, and what the stages are made of."""
