"""What a run published, written to where people watch it. Stages never talk to a tracker; this package does."""
