"""AiDotNet's names: tasks, batches, options, results and the protocols of what a user gives. No engine."""
