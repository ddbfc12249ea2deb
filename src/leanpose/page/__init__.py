"""A static web page that estimates poses in the browser: photos, videos and the webcam, with nothing sent anywhere."""

from leanpose.page.page import PageReport, write_page

__all__ = ["PageReport", "write_page"]
