"""The machine: devices, signals, memory, files, packages. Nothing here knows of models or runs."""
