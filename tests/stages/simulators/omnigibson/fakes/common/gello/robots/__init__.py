"""JoyLo's package, as far as Baton touches it."""
