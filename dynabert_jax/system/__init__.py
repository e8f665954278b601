"""The machine: devices, signals, memory, files, packages. Independent of models and runs."""
