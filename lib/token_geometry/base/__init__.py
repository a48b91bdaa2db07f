"""What every other part stands on: errors, parameters, the project's folders, the store of results."""
