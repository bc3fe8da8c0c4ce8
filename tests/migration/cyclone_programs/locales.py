import os
import sys

import cyclone.locale
import cyclone.web
from twisted.internet import reactor
from twisted.python import log


class Index(cyclone.web.RequestHandler):
    def get_user_locale(self):
        return cyclone.locale.get(self.get_cookie("lang", default="en_US"))

    def get(self):
        apples = int(self.get_argument("apples", 1))
        _ = self.locale.translate
        self.write(_("One apple", "%(count)d apples", apples) % {"count": apples})

    def post(self):
        self.set_cookie("lang", self.get_argument("lang"))
        self.redirect("/?apples=3")


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    os.mkdir("locale")
    with open("locale/es_ES.csv", "w") as table:
        table.write(
            '"One apple","Una manzana","singular"\n"%(count)d apples","%(count)d manzanas","plural"\n'
        )
    cyclone.locale.load_translations("locale")
    reactor.listenTCP(8888, cyclone.web.Application([(r"/", Index)]), interface="127.0.0.1")
    reactor.run()
