"""CTKD and PKT in one's own loop: 0.1 CE + 0.9 T² KL at a learned T, and a feature loss.

python examples/ctkd_pkt.py
"""

import torch
from torch import nn

import ctkd
from ctkd.data.digits import Digits
from ctkd.losses.features.pkt import PKT
from ctkd.registry import MODELS

torch.manual_seed(0)
train = Digits(padding=0).load().train
images, targets = train.images.permute(0, 3, 1, 2).float() / 255, train.targets
teacher, student = MODELS.get("digits_teacher")(), MODELS.get("digits_student")()
trained = torch.optim.SGD(teacher.parameters(), lr=0.1, momentum=0.9)
for batch in torch.randint(len(images), (200, 64)):
    nn.functional.cross_entropy(teacher(images[batch]), targets[batch]).backward()
    trained.step()
    trained.zero_grad()

distiller = ctkd.Distiller(
    ctkd.GlobalTemperature(), ctkd.CosineLambda(), ctkd.KD(), features=[PKT(weight=30000.0)]
)
taught, learns = (ctkd.features(n, ["pooled"]) for n in (teacher.eval(), student))
optimizer = torch.optim.SGD([*student.parameters(), *distiller.parameters()], lr=0.05, momentum=0.9)
for step, batch in enumerate(torch.randint(len(images), (200, 64))):
    with torch.no_grad():
        teacher_logits, theirs = taught(images[batch])
    logits, ours = learns(images[batch])
    rows = (logits, teacher_logits, targets[batch])
    outcome = distiller(*rows, position=step / 10, features=(ours, theirs))
    outcome.loss.backward()
    optimizer.step()
    optimizer.zero_grad()
accuracy = 100 * student.eval()(images).argmax(1).eq(targets).double().mean()
print(f"T = {outcome.temperature:.2f}, PKT {outcome.terms['pkt']:.1e}, accuracy {accuracy:.1f} %")
