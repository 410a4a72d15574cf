"""The checks of the exercises: chapterNN judges the exercises of notebook NN. They print, and never raise."""
