"""The command without its script: `python -m aidotnet_py`."""

from aidotnet_py.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
