"""The operators that side studies measure: those that ship."""

from sciml_fm_core.physics.tasks import Task

TRAINED_ON = {
    "sys-1": ("SYS-1(1,5)",),
    "sys-2": ("SYS-2(0.2,1)",),
    "sys-3": ("SYS-3(1,10)",),
    "sys-1-paper": ("SYS-1(1,5)",),
    "sys-1-symbol": ("SYS-1(1,5)",),
    "mixed": ("SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)"),
    "symbol": ("SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)"),
}
"""Their names, and the tasks that each was trained on."""

SYSTEMS_OF = {name: tuple(Task.parse(task).system.name for task in tasks) for name, tasks in TRAINED_ON.items()}
"""Their names, and the systems that each was trained on."""
