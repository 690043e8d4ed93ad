"""ChipSpec to Amaranth modules to Verilog, and the Verilated chip driven from Python. Needs the extra `tapeout[rtl]`."""
