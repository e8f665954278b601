"""The machine: devices, processes, signals, memory, files, JSON, packages. Independent of models and runs."""
