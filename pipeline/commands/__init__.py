"""The commands of `baton`, by subject. Heavy imports happen inside them."""
