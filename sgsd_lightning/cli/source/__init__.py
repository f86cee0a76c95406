"""What source files say of classes and their arguments, without the seconds that importing torch takes."""
