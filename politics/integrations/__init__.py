"""Leadership for what other libraries run. Each module needs its library, which an extra of the same name installs."""
