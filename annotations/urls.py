"""Pages of the labelling room, below the admin's address and behind its login."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from annotations import adjudicate_views, help_views, impact_views, label_views, queue_views
from annotations.comparing import views as comparing
from annotations.trust.views import agreement_page

app_name = "annotations"
_staff = admin.site.admin_view

urlpatterns = [
    path("label/mine/", _staff(impact_views.mine), name="mine"),
    path("label/of/<int:user_id>/", _staff(impact_views.of_person), name="of_person"),
    path("label/<int:queue_id>/", _staff(label_views.label_page), name="label"),
    path("label/<int:queue_id>/submit", _staff(label_views.submit_label), name="submit"),
    path("label/<int:queue_id>/skip", _staff(label_views.skip_item), name="skip"),
    path("label/<int:queue_id>/undo", _staff(label_views.undo), name="undo"),
    path("label/<int:queue_id>/renew", _staff(label_views.renew), name="renew"),
    path("label/<int:queue_id>/release", _staff(label_views.release), name="release"),
    path("label/<int:queue_id>/ahead", _staff(help_views.ahead), name="ahead"),
    path("label/<int:queue_id>/effect", _staff(help_views.effect), name="effect"),
    path("label/<int:queue_id>/search", _staff(help_views.search), name="search"),
    path("label/<int:queue_id>/suggestions", _staff(help_views.suggestions), name="suggestions"),
    path("label/<int:queue_id>/draft", _staff(help_views.draft), name="draft"),
    path("queue/<int:queue_id>/items/", _staff(queue_views.items), name="items"),
    path("queue/<int:queue_id>/items/<int:item_id>/gold", _staff(queue_views.gold), name="gold"),
    path("queue/<int:queue_id>/pause", _staff(queue_views.pause), name="pause"),
    path("queue/<int:queue_id>/hand-over", _staff(queue_views.hand_over), name="hand_over"),
    path("queue/<int:queue_id>/ask-again", _staff(queue_views.ask_again), name="ask_again"),
    path("adjudicate/<int:queue_id>/", _staff(adjudicate_views.disagreements), name="disagreements"),
    path("adjudicate/<int:queue_id>/<int:item_id>/", _staff(adjudicate_views.adjudicate_page), name="adjudicate"),
    path("agreement/", _staff(agreement_page), name="agreement"),
    path("compare/<int:round_id>/", _staff(comparing.compare_page), name="compare"),
    path("compare/<int:round_id>/choose", _staff(comparing.submit_choice), name="choose"),
    path("compare/<int:round_id>/undo", _staff(comparing.undo_choice), name="undo-choice"),
]
