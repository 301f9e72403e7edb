"""BEHAVIOR's demonstrations: a LeRobot v2.1 data set of an R1 Pro with two arms."""
