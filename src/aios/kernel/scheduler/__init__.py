"""The scheduler: who may use a scarce thing next. A pure core decides, an async shell waits."""
