"""The phases of the method, one file each; every file reads like the paragraph of the paper that it implements."""
