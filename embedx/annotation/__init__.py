"""The annotation page: a person says in a browser what features show, on the results of `embedx spuriosity discover`.

A small server on this machine alone (`server`, guarded by `guard`) shows one class per screen. It reads the pictures
that `panels` drew and adds every vote to the annotation file before it says "saved" (`votes`). `views` says what pages
hold, `pictures` serves images by their index, `background` runs the steps that take long in a process of their own.
"""
