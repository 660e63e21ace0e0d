"""What goes to other programs after a session, and what comes back from them.

places     the tomograms that a folder stands for
exports    results of a finished session in another program's dialect
imports    other programs' points and masks
imported   the folder in which these stand
"""
