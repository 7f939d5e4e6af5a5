"""`vision-reasoner serve`: the model behind HTTP, and a page to look, correct and label with.

batching.py     requests that come together are answered together, fair between clients
pictures.py     uploads, and the pictures and features that are kept for a while
requests.py     what comes in and goes out: bodies, events, errors
guard.py        what holds for every request: limits, key, ids, log, metrics
corrections.py  what people corrected, on disk
app.py          the addresses
command.py      the command line
ray_app.py      the same under Ray Serve, with replicas of the model on several GPUs and machines; serve.yaml sets it up
page/           what a browser gets
"""
