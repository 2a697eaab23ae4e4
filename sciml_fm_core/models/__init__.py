"""Neural operators: architectures, what they are told of an equation, and the bundle of a trained one."""
