"""labeltrack inside training frameworks: one module a framework, imported by name, on demand."""
