"""The database backend of web processes: `config.pooled.base`, where Django looks for it."""
