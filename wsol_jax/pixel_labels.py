"""What a pixel of a mask says of itself."""

BACKGROUND, FOREGROUND = 0, 1
UNANNOTATED = 255  # nobody has said which
