"""Running a command of a stranger: as another user, in bounded time, writing nowhere else, and leaving nothing behind.

`running.run` is the door. It starts a process of its own (`warden`), which needs the standard library alone.
"""
