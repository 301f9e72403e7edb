"""OmniGibson's API without Isaac Sim: what Baton touches of its three generations, traps included.

The robot is a stick figure with linear kinematics, the world one object to reach for, and a camera picture a function
of both. What is modelled faithfully is the interface: what is returned in which form, what is asserted, what is
dropped without a word, which counters are off by one, and that physics and rendering are those of the whole process.
`FAKE_OMNIGIBSON_FAULT` makes one thing go wrong, see `faults`.
"""
