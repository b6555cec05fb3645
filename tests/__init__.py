"""A package, as the wheel of pystun3 installs one of the same name, which would be found first."""
