"""The defences: one public class, one paper, one file."""
