import os
import sys

import cyclone.template
import cyclone.web
from twisted.internet import reactor
from twisted.python import log

PAGE = "{% if info %}{{ info['name'] }}: {{ info['file'] }}{% else %}missing: {{ missing }}{% end %}"


class Index(cyclone.web.RequestHandler):
    def show(self, **names):
        self.write(self.create_template_loader(".").load("index.html").generate(**names))

    def post(self):
        name = self.get_argument("fullname", None)
        picture = self.request.files.get("picture")
        if name is None or picture is None:
            self.show(missing="fullname" if name is None else "picture", info=None)
            return
        picture = picture[0]
        path = os.path.join(self.settings.repository_path, os.path.basename(picture["filename"]))
        with open(path, "wb") as out:
            out.write(picture["body"])
        size = f"{picture['filename']}, type={picture['content_type']}, size={len(picture['body'])}"
        self.show(missing="", info={"name": name, "file": size})

    def create_template_loader(self, template_path):
        return cyclone.template.DictLoader({"index.html": PAGE})


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    os.mkdir("uploaded")
    application = cyclone.web.Application([(r"/", Index)], repository_path="uploaded")
    reactor.listenTCP(8888, application, interface="127.0.0.1")
    reactor.run()
