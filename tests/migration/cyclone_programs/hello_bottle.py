import sys

import cyclone.sqlite
from cyclone.bottle import route, run

db = cyclone.sqlite.InlineSQLite(":memory:")
db.runOperation("CREATE TABLE greetings (text TEXT)")
db.runOperation("INSERT INTO greetings VALUES (?)", ["Hello, bottle"])


@route("/")
def index(web):
    web.write(db.runQuery("SELECT text FROM greetings")[0][0])


run(host="127.0.0.1", port=8888, log=sys.stdout)
