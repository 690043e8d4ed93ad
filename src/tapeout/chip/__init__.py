"""What a chip is: `ChipSpec` (what can be built), presets as data files, the memory model, the static routes."""
